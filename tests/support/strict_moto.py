"""moto with a CloudFront that is as strict as the real one: an update needs the present ETag and changes it, groups of origins are targets, writes
cannot go through a group, and a change takes some looks until it is deployed.

    strict_moto.py MEDDLER --host … --port …

If the file MEDDLER is there when an update comes, somebody else was faster: its JSON ({"comment": …} or {"target": …}, of the default behaviour) is
applied first, and the file is gone.
"""

import json
import os
import sys

from moto.cloudfront import models
from moto.cloudfront.exceptions import CloudFrontException, OriginDoesNotExist
from moto.moto_api import state_manager
from moto.server import main

MEDDLER = sys.argv.pop(1)
LOOKS_UNTIL_DEPLOYED = 3
WRITES = {"POST", "PUT", "PATCH", "DELETE"}

made = models.DistributionConfig.__init__
updated = models.CloudFrontBackend.update_distribution


def strict_config(self, config):
    origins = {origin["Id"] for origin in config["Origins"]["Items"]}
    groups = {group["Id"] for group in (config.get("OriginGroups") or {}).get("Items") or []}
    default = config["DefaultCacheBehavior"]
    for behaviour in [default, *((config.get("CacheBehaviors") or {}).get("Items") or [])]:
        target = behaviour["TargetOriginId"]
        if target not in origins | groups:
            raise OriginDoesNotExist
        if target in groups and WRITES & set((behaviour.get("AllowedMethods") or {}).get("Items") or []):
            raise CloudFrontException("InvalidArgument", "AllowedMethods cannot include writes for an origin group")
    target, default["TargetOriginId"] = default["TargetOriginId"], next(iter(origins))
    made(self, config)
    self.DefaultCacheBehavior.target_origin_id = target


def strict_update(self, dist_config, _id, if_match):
    distribution = self.distributions.get(_id)
    if distribution is not None and os.path.exists(MEDDLER):
        with open(MEDDLER) as file:
            change = json.load(file)
        os.remove(MEDDLER)
        if "comment" in change:
            distribution.distribution_config.Comment = change["comment"]
        if "target" in change:
            distribution.distribution_config.DefaultCacheBehavior.target_origin_id = change["target"]
        distribution.etag = models.random_id()
    if distribution is not None and if_match and if_match != distribution.etag:
        raise CloudFrontException("PreconditionFailed", "The request failed because it didn't meet the preconditions")
    updated(self, dist_config, _id, if_match)
    distribution.etag = models.random_id()
    distribution.status = "InProgress"
    distribution._tick = 0
    return distribution, distribution.location, distribution.etag


models.DistributionConfig.__init__ = strict_config
models.CloudFrontBackend.update_distribution = strict_update
state_manager.set_transition("cloudfront::distribution", {"progression": "manual", "times": LOOKS_UNTIL_DEPLOYED})
main()
