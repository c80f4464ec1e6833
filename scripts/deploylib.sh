# shellcheck shell=bash
# What scripts/install and scripts/uninstall share: where things lie, and how a dry run is done.
# Sourced after lib.sh, never run.

# shellcheck disable=SC2034  # the scripts use them
{
    SERVICE_USER=voidvm
    PREFIX=/opt/voidvm
    COMMAND=/usr/local/bin/voidvm
    CONFIG=/etc/voidvm/voidvm.toml
    DATA=/var/lib/voidvm
    RUN=/run/voidvm
    SYSTEMD=/etc/systemd/system
    UNITS=(voidvm.service voidvm-guests.service)
    OLD_SYSTEMD=$SYSTEMD/voidvm.service.d/old-systemd.conf
    DRY=
}

# Do it, or in a dry run say it.
act() {
    if [ -n "$DRY" ]; then
        printf 'would: %s\n' "$*"
    else
        "$@"
    fi
}

require_root() {
    [ -n "$DRY" ] || [ "$(id -u)" -eq 0 ] || fail 'this must be run as root (or with --dry-run)'
}

is_systemd_running() {
    [ -d /run/systemd/system ]
}

systemd_version() {
    systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p'
}
