# Checks the workflows of the checkout and the settings of updates, without a network.
set -euo pipefail

workflows=(.github/workflows/*.yaml)
check-jsonschema --builtin-schema vendor.github-workflows "${workflows[@]}"
# A job that hangs ends.
check-jsonschema --builtin-schema custom.github-workflows-require-timeout "${workflows[@]}"
check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yaml
zizmor --offline --quiet --persona pedantic .github
