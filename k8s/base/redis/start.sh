#!/bin/sh
# Starts the server with the ACL that users.acl describes; further arguments go to the server.
#
# Passwords reach the server's ACL as digests only. A pod that dies here leaves nothing but its own memory-backed
# volume. The variables are for tests: in the pod the defaults hold.
set -eu
config="${VALKEY_CONFIG:-/etc/valkey}"
secrets="${VALKEY_SECRETS:-/run/secrets/piecework}"
run="${VALKEY_RUN:-/run/valkey}"
umask 077

digest() {
  printf '#%s' "$(printf '%s' "$1" | sha256sum | cut -d ' ' -f 1)"
}

password() {
  word="$(cat "$secrets/$1/password")"
  case "$word" in
    '' | change-me*)
      echo "start.sh: the password of the $1 is ${word:-empty}: make real ones, see docs/kubernetes.md" >&2
      exit 1 ;;
  esac
  printf '%s' "$word"
}

producer="$(password producer)"
worker="$(password worker)"
if [ "$producer" = "$worker" ]; then
  echo 'start.sh: producer and worker have the same password, so that a worker could be the producer' >&2
  exit 1
fi
head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1 > "$run/password"

awk '
  /^#/ || /^[ \t]*$/ { next }
  { $1 = $1 }
  /^user / { if (line) print line; line = $0; next }
  { line = line " " $0 }
  END { print line }
' "$config/users.acl" | sed \
  -e "s/<producer-digest>/$(digest "$producer")/" \
  -e "s/<worker-digest>/$(digest "$worker")/" \
  -e "s/<local-digest>/$(digest "$(cat "$run/password")")/" > "$run/users.acl"

exec valkey-server "$config/valkey.conf" \
  --dir "${VALKEY_DATA:-/data}" --aclfile "$run/users.acl" --maxmemory "${MAXMEMORY:-0}" "$@"
