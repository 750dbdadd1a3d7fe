#!/usr/bin/env bash
# Installs a built wheel with the pinned versions in an empty environment and uses it outside the repository.
# usage: tools/wheel_test.sh PYTHON WHEEL CONSTRAINTS
set -euo pipefail

python=$1
wheel=$(realpath "$2")
constraints=$(realpath "$3")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

cd "$place"
export VLPROMPT_CACHE=$place/cache
"$python" -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet --constraint "$constraints" "$wheel"
if env/bin/python -m pip list --format freeze | grep -Eiq '^(transformers|pytest|mypy)=='; then
  echo "the wheel pulls packages that are for development only" >&2
  exit 1
fi
env/bin/vlprompt --version
env/bin/vlprompt env
env/bin/vlprompt quickstart --data clipart-living --shots 2 --seeds 1 --set epochs=2 --out first
env/bin/vlprompt train --data clipart-living --method plpp+coop --shots 2 --set epochs=1 --out second
env/bin/vlprompt explain second
echo "the wheel works"
