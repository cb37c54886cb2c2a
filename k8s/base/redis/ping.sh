#!/bin/sh
# For the probes. `ping.sh alive`: the server answers at all, also while it loads its data. `ping.sh ready`: it serves.
set -eu
run="${VALKEY_RUN:-/run/valkey}"
REDISCLI_AUTH="$(cat "$run/password")"
export REDISCLI_AUTH
answer="$(valkey-cli ${VALKEY_SOCKET:+-s "$VALKEY_SOCKET"} --user probe ping 2>&1 || :)"
case "$1 $answer" in
  *' PONG' | alive*LOADING* | alive*BUSY*) ;;
  *) echo "$answer"; exit 1 ;;
esac
