# Copies the images of each architecture to a registry, and an index of them under one tag.
set -euo pipefail
usage="usage: push REGISTRY/OWNER TAG ARCHITECTURE=FOLDER...

  push ghcr.io/coderanger sha-0123abc amd64=result-amd64 arm64=result-arm64

A folder is what \`nix build .#images\` gives. Prints a line \`NAME@DIGEST\` for each index. The same images have the same
digests however often they are pushed."

if [ "$#" -lt 3 ]; then
  echo "$usage" >&2
  exit 64
fi
owner=$1 tag=$2
shift 2

work=$(mktemp --directory)
trap 'rm --recursive "$work"' EXIT

# Writes an archive with layers as small as gzip makes them: crane leaves compressed ones as they are, and compresses others
# for speed, a tenth larger.
compress() {
  local unpacked=$work/unpacked
  mkdir "$unpacked"
  tar --extract --file "$1" --directory "$unpacked"
  chmod --recursive u+w "$unpacked"
  find "$unpacked" -name layer.tar -exec gzip -9 --no-name {} \; -exec mv {}.gz {} \;
  tar --create --file "$2" --directory "$unpacked" .
  rm --recursive "$unpacked"
}

for name in controller webhook waiter; do
  image="$owner/migrations-$name"
  manifests=()
  for each in "$@"; do
    architecture=${each%%=*} archive=${each#*=}/$name.tar
    reference="$image:$tag-$architecture"
    echo "pushing $archive as $reference" >&2
    compress "$archive" "$work/compressed.tar"
    crane push "$work/compressed.tar" "$reference" >&2
    # What the index will say of an image comes from the image, whatever its folder is called here.
    if ! crane config "$reference" | grep --extended-regexp --quiet "\"architecture\": *\"$architecture\""; then
      echo "error: $archive isn't an image for $architecture: give each architecture its own folder" >&2
      exit 1
    fi
    manifests+=(--manifest "$image@$(crane digest "$reference")")
  done
  echo "indexing $# architectures as $image:$tag" >&2
  crane index append "${manifests[@]}" --tag "$image:$tag" >&2
  echo "$image@$(crane digest "$image:$tag")"
done
