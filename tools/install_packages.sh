#!/usr/bin/env bash
# install_packages.sh GROUP...: installs the Debian packages of the named groups that are missing; does nothing, and
# needs no rights, when none is.
#   build  what the program needs        test  what the tests and benchmarks need        check  formatter, linter, fuzzer
#   cross  the kernels for ARM under emulation
set -euo pipefail

packages_of() {
  case "$1" in
    build)
      echo cmake ninja-build gcc g++ pkg-config nlohmann-json3-dev libcli11-dev libpcre2-dev libcurl4-openssl-dev \
        libssl-dev libedit-dev libtomlplusplus-dev libzstd-dev libboost-dev
      ;;
    test)
      echo git libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev python3 python3-jinja2 python3-jsonschema \
        python3-pip qemu-user expect chromium-headless-shell
      ;;
    cross) echo cmake ninja-build g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user googletest python3 ;;
    check) echo git python3 clang-16 clang-tidy-16 clang-format-16 libclang-rt-16-dev llvm-16 ;;
    *) fail "group: expected build, test, check or cross, found '$1'" ;;
  esac
}

fail() {
  echo "install_packages.sh: error: $1" >&2
  exit 1
}

[ $# -gt 0 ] || fail "arguments: expected one or more of build, test, check, cross, found none"
wanted=()
for group in "$@"; do
  names=$(packages_of "$group")
  read -r -a names <<<"$names"
  wanted+=("${names[@]}")
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_packages.sh: not a Debian system; expecting the equivalents of: ${wanted[*]}" >&2
  exit 0
fi

missing=()
for package in "${wanted[@]}"; do
  # A name may list several architectures; one that is installed is enough.
  status=$(dpkg-query -W -f='${db:Status-Status} ' "$package" 2>/dev/null) || status=
  case " $status" in
    *" installed "*) ;;
    *) missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || fail "missing packages: ${missing[*]}; expected root or sudo to install them, found neither"
  as_root=(sudo)
fi
echo "installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Only what goes wrong is worth reading.
apt() {
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    fail "apt-get $1: could not install ${missing[*]}"
  fi
}
apt update
apt install -y --no-install-recommends "${missing[@]}"
