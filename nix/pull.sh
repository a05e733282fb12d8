# Pulls indexes with all their images and layers, as anyone would who has no account at the registry.
set -euo pipefail

if [ "$#" -eq 0 ]; then
  echo "usage: pull NAME@DIGEST..." >&2
  exit 64
fi

nobody=$(mktemp --directory)
trap 'rm --recursive "$nobody"' EXIT

for index in "$@"; do
  echo "pulling $index" >&2
  # Credentials are found by way of the home and of variables.
  if ! env --ignore-environment PATH="$PATH" HOME="$nobody" crane validate --remote "$index" >&2; then
    echo "error: $index can't be pulled without an account; if it is there, make the package public in its settings" >&2
    exit 1
  fi
done
