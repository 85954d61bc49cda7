# Checks Kubernetes manifests against the schemas of its API and prints them as JSON, one list of objects.
#
#   python3 kubernetes.py FILE...
import json
import sys

import kubernetes_validate
import yaml

VERSION = "1.31"

found = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        for manifest in yaml.safe_load_all(file):
            # Kustomize has no schema there: its files never reach the API.
            if manifest["kind"] != "Kustomization":
                kubernetes_validate.validate(manifest, VERSION, strict=True)
            found.append(manifest)
json.dump(found, sys.stdout)
