# Signs indexes and all that they name, and attaches what each image is made of. There is no key: who runs this is what GitHub,
# or a login in a browser, says.
set -euo pipefail

if [ "$#" -eq 0 ]; then
  echo "usage: sign NAME@DIGEST..." >&2
  exit 64
fi
folder=$(mktemp --directory)
trap 'rm --recursive "$folder"' EXIT

for index in "$@"; do
  echo "signing $index" >&2
  cosign sign --yes --recursive "$index"
  architectures=$(crane manifest "$index" | grep --only-matching '"architecture": *"[^"]*"' | cut --delimiter='"' --fields=4)
  for architecture in $architectures; do
    image=${index%@*}@$(crane digest --platform "linux/$architecture" "$index")
    list=$folder/$architecture.spdx.json
    echo "attaching what $image is made of" >&2
    syft scan "registry:$index" --platform "linux/$architecture" --output "spdx-json=$list"
    # To the index as well: that is what a version's name leads to.
    for subject in "$image" "$index"; do
      cosign attest --yes --type spdxjson --predicate "$list" "$subject"
    done
  done
done
