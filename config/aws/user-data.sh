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
rm -rf "$work"

systemctl daemon-reload
systemctl enable --now planb.service
