#!/bin/sh
# Makes overlays/local: an overlay (base, or the one that is named) with passwords that nobody knows. It stays out of git.
set -eu
cd "$(dirname "$0")/overlays"
case "${1:-base}" in
  base) below=../../base ;;
  dev) below=../dev ;;
  *) echo "usage: $0 [base|dev]" >&2; exit 2 ;;
esac
if [ -e local ]; then
  echo "$PWD/local exists; with new passwords, runs that are under way could not go on: remove it first" >&2
  exit 1
fi
umask 077
mkdir local
for user in worker producer; do
  sed "s/^password=.*/password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')/" \
    "../base/redis/$user.example.env" > "local/$user.env"
done
cat > local/kustomization.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: piecework
resources: [$below]
secretGenerator:
  - {name: piecework-redis, behavior: merge, envs: [worker.env]}
  - {name: piecework-redis-producer, behavior: merge, envs: [producer.env]}
END
echo "made $PWD/local: kubectl apply -k $PWD/local"
