# Copies the images of each architecture to a registry, and an index of them under one tag.
usage="usage: push REGISTRY/OWNER TAG ARCHITECTURE=FOLDER...

  push ghcr.io/coderanger sha-0123abc amd64=result-amd64 arm64=result-arm64

A folder is what \`nix build .#images\` gives. Prints a line \`NAME@DIGEST\` for each index. The same images have the same
digests however often they are pushed. INSECURE=1 is for a registry on this machine without TLS."

if [ "$#" -lt 3 ]; then
  echo "$usage" >&2
  exit 64
fi
owner=$1 tag=$2
shift 2
options=()
if [ -n "${INSECURE:-}" ]; then
  options=(--insecure)
fi

for name in controller webhook waiter; do
  image="$owner/migrations-$name"
  manifests=()
  for each in "$@"; do
    architecture=${each%%=*} folder=${each#*=}
    reference="$image:$tag-$architecture"
    crane push "${options[@]}" "$folder/$name.tar" "$reference" >&2
    manifests+=(--manifest "$image@$(crane digest "${options[@]}" "$reference")")
  done
  crane index append "${options[@]}" "${manifests[@]}" --tag "$image:$tag" >&2
  echo "$image@$(crane digest "${options[@]}" "$image:$tag")"
done
