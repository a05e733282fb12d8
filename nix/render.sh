# Renders what the operator is installed from, for images that have been pushed. Runs in the checkout.
set -euo pipefail
usage="usage: render FOLDER REGISTRY/OWNER TAG [NAME@DIGEST...]

  render release ghcr.io/coderanger 0.1.0 \$(cat indexes)

Writes install.yaml and the packed Helm chart to FOLDER. The names with digests are what \`push\` prints; all three images
have one, or none."

if [ "$#" -ne 3 ] && [ "$#" -ne 6 ]; then
  echo "$usage" >&2
  exit 64
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd) owner=$2 tag=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R manifests chart "$work"
chmod -R u+w "$work"
cd "$work"

sed -i "s|\(app.kubernetes.io/version:\) .*|\1 \"$tag\"|" manifests/kustomization.yaml
sed -i "s|^appVersion: .*|appVersion: \"$tag\"|" chart/Chart.yaml
sed -i "s|^  registry: .*|  registry: $owner|" chart/values.yaml
sed -i '/^images:/,$d' manifests/kustomization.yaml
echo "images:" >> manifests/kustomization.yaml
for name in controller webhook waiter; do
  image="$owner/migrations-$name"
  printf '  - name: %s\n    newName: %s\n    newTag: "%s"\n' "migrations-$name" "$image" "$tag" >> manifests/kustomization.yaml
  if [ "$#" -eq 0 ]; then
    continue
  fi
  digest=
  for index in "$@"; do
    if [ "${index%@*}" = "$image" ]; then
      digest=${index#*@}
    fi
  done
  if [ -z "$digest" ]; then
    echo "there is no digest of $image among: $*" >&2
    exit 64
  fi
  echo "    digest: $digest" >> manifests/kustomization.yaml
  sed -i "s|^annotations:|&\n  migrations.coderanger.net/$name-digest: $digest|" chart/Chart.yaml
done

{
  cat << END
# migrations-operator $tag
#
#   kubectl apply --server-side -f install.yaml
#
# Don't delete by this file: it holds the definition of Migrators, and with that go all Migrators, the record of what is
# migrated, and migrations under way. The README says how to uninstall.
END
  kubectl kustomize manifests
} > "$folder/install.yaml"
# What `helm package` makes, but the same bytes for the same content.
version=$(sed -n 's/^version: //p' chart/Chart.yaml)
mv chart migrations-operator
tar --create --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --mode=a+rX,go-w migrations-operator |
  gzip -n > "$folder/migrations-operator-$version.tgz"
