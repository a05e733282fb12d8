# Gives the images of a commit a version, once: nothing is built or pushed anew, so what was tested is what is released.
set -euo pipefail
usage="usage: promote REGISTRY/OWNER TAG VERSION SIGNER

  promote ghcr.io/coderanger sha-0123abc 1.2.3 \\
    https://github.com/coderanger/migrations-operator/.github/workflows/ci.yaml@refs/heads/main

Refuses a TAG that isn't there or that SIGNER, a workflow on GitHub, hasn't signed, and a VERSION that is there or isn't the
one in Cargo.toml here. Prints a line \`NAME@DIGEST\` for each index."

if [ "$#" -ne 4 ]; then
  echo "$usage" >&2
  exit 64
fi
owner=$1 tag=$2 version=$3 signer=$4

# The images say what is there.
if ! grep --fixed-strings --line-regexp --quiet "version = \"$version\"" Cargo.toml; then
  echo "error: Cargo.toml isn't of version $version: tag a commit that is, or v and the version it has" >&2
  exit 1
fi

# All is looked at before anything is written.
indexes=() missing=() taken=() copied=0
for name in controller webhook waiter; do
  image="$owner/migrations-$name"
  # A list that can't be had fails here; a tag that isn't in it isn't there.
  tags=$(crane ls "$image") || {
    echo "error: cannot list the tags of $image: has CI published the commit?" >&2
    exit 1
  }
  if ! grep --fixed-strings --line-regexp --quiet "$tag" <<<"$tags"; then
    missing+=("$image:$tag")
    continue
  fi
  digest=$(crane digest "$image:$tag")
  indexes+=("$image@$digest")
  if grep --fixed-strings --line-regexp --quiet "$version" <<<"$tags"; then
    if [ "$(crane digest "$image:$version")" = "$digest" ]; then
      copied=$((copied + 1))
    else
      taken+=("$image:$version")
    fi
  fi
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "error: not in the registry: ${missing[*]}. CI publishes the commits of the default branch that pass; wait for it, or tag one that it has published" >&2
  exit 1
fi
if [ "${#taken[@]}" -gt 0 ]; then
  echo "error: released already, from another commit: ${taken[*]}. Choose another version" >&2
  exit 1
fi
# Fewer than all is what a run left behind that ended halfway.
if [ "$copied" -eq "${#indexes[@]}" ]; then
  echo "error: $version is released already, from this commit" >&2
  exit 1
fi

for index in "${indexes[@]}"; do
  echo "checking who signed $index" >&2
  if ! cosign verify --certificate-oidc-issuer https://token.actions.githubusercontent.com \
    --certificate-identity "$signer" "$index" >&2; then
    echo "error: $index isn't signed by $signer: release what CI has published" >&2
    exit 1
  fi
done
for index in "${indexes[@]}"; do
  echo "tagging $index as $version" >&2
  crane tag "$index" "$version" >&2
  echo "$index"
done
