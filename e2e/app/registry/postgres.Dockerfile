# The shop's database where a registry answers: the official image under the name that the manifests use.
FROM postgres:17@sha256:d74eeac9a635390a49bc21bd49fccd973de707e2a53a76ac49b552b8712ec46f
