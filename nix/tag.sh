# Gives indexes one more name, whatever it meant before.
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: tag TAG NAME@DIGEST..." >&2
  exit 64
fi
tag=$1
shift

for index in "$@"; do
  echo "tagging $index as $tag" >&2
  crane tag "$index" "$tag"
done
