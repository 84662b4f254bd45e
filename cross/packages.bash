# Sourced by the scripts that need programs of the system: says what is missing, and installs it where it can.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs what is missing of the named Debian packages; asks no server when nothing is.
install_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    if ! command -v apt-get >/dev/null; then
        echo "this is no Debian: install yourself what Debian calls ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

# Unpacks Debian packages, as "name:architecture", into a directory, without installing them: what an emulated machine
# runs. Asks no server when all are there.
unpack_packages() {
    local directory=$1 package missing=()
    shift
    for package in "$@"; do
        [ -e "$directory/.$package" ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    for package in "${missing[@]}"; do
        if ! { dpkg --print-architecture; dpkg --print-foreign-architectures; } | grep -qx "${package#*:}"; then
            echo "dpkg --add-architecture ${package#*:}" >&2
            as_root dpkg --add-architecture "${package#*:}"
        fi
    done
    echo "unpacking ${missing[*]} into $directory" >&2
    as_root apt-get update -q >&2
    mkdir -p "$directory/.download"
    (cd "$directory/.download" && apt-get download -q "${missing[@]}" >&2)
    for package in "$directory"/.download/*.deb; do
        dpkg -x "$package" "$directory"
    done
    rm -r "$directory/.download"
    for package in "${missing[@]}"; do
        : >"$directory/.$package"
    done
}
