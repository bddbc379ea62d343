#!/bin/sh
# Installs the service, as scripts/install does. Nothing secret is in here: it may be read by whoever may describe the machine.
set -eu

work=$(mktemp -d)
curl --fail --silent --show-error --location --proto '=https' --retry 10 --retry-all-errors --output "$work/planb" '${planb_url}'
echo '${planb_sha256}  '"$work/planb" | sha256sum --check --quiet
install -m 0755 "$work/planb" /usr/local/bin/planb

getent passwd planb >/dev/null ||
    useradd --system --user-group --home-dir /var/lib/planb --no-create-home --shell /usr/sbin/nologin planb
install -d -m 0750 -g planb /etc/planb
install -d -m 0700 /etc/planb/credentials
echo '${config}' | base64 --decode >"$work/planb.toml"
[ -e /etc/planb/planb.toml ] || install -m 0640 -g planb "$work/planb.toml" /etc/planb/planb.toml
curl --fail --silent --show-error --proto '=https' --retry 10 --retry-all-errors --output /etc/planb/rds-global-bundle.pem \
    https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
echo '${unit}' | base64 --decode >/etc/systemd/system/planb.service

# What the agent is given: each only if it lies in /etc/credstore.encrypted (README.md). planb-primary and petclinic-db raise a fence that is
# still owed, the last two tell people.
install -d -m 0700 /etc/credstore.encrypted /etc/systemd/system/planb.service.d
cat >/etc/systemd/system/planb.service.d/credentials.conf <<'UNIT'
[Service]
LoadCredentialEncrypted=planb-source
LoadCredentialEncrypted=planb-azure
LoadCredentialEncrypted=planb-primary
LoadCredentialEncrypted=petclinic-db
LoadCredentialEncrypted=slack-hook
LoadCredentialEncrypted=pagerduty-key
UNIT

# What operators need who type a planned failover or the way home here (make-bundle): az, terraform with its providers, config/azure and
# config/kubernetes, operator.toml. Memory for terraform; the agent does not swap.
if [ -n '${bundle_url}' ]; then
    curl --fail --silent --show-error --location --proto '=https' --retry 10 --retry-all-errors --output "$work/bundle" '${bundle_url}'
    echo '${bundle_sha256}  '"$work/bundle" | sha256sum --check --quiet
    tar --extract --gzip --no-same-owner --file "$work/bundle" --directory /
    dpkg --install /opt/planb/azure-cli.deb
    if [ ! -e /swapfile ]; then
        fallocate -l 2G /swapfile
        chmod 0600 /swapfile
        mkswap /swapfile >/dev/null
        echo '/swapfile none swap sw 0 0' >>/etc/fstab
        swapon /swapfile
    fi
fi
rm -rf "$work"

systemctl daemon-reload
systemctl enable --now planb.service
