# Checks the workflows of the checkout and the settings of updates, without a network.
set -euo pipefail

workflows=(.github/workflows/*.yaml)
check-jsonschema --builtin-schema vendor.github-workflows "${workflows[@]}"
# A job that hangs ends.
check-jsonschema --builtin-schema custom.github-workflows-require-timeout "${workflows[@]}"
# Older ones don't know of updates of flakes.
needed=0.37.2
version=$(check-jsonschema --version)
version=${version##* }
if printf '%s\n' "$needed" "$version" | sort --version-sort --check=quiet; then
  check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yaml
else
  echo "not checked: .github/dependabot.yaml, which takes check-jsonschema $needed; this is $version" >&2
fi
zizmor --offline --quiet --persona pedantic .github
