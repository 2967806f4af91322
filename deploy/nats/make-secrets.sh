#!/usr/bin/env bash
# Makes what nats-server.conf and the parts of gql-jobs need, into the folder secrets beside this file: a certificate
# authority, the server's certificate, and a password for each user.
# usage: make-secrets.sh [NAME_OR_ADDRESS_OF_THE_SERVER…]     by default nats, localhost and 127.0.0.1
set -euo pipefail

cd "$(dirname "$0")"
[[ ! -e secrets ]] || { echo "$PWD/secrets is there already: remove it, and everything is made anew" >&2; exit 1; }
[[ $# -gt 0 ]] || set -- nats localhost 127.0.0.1
names=
for name in "$@"; do
  [[ $name =~ ^[0-9.]+$|: ]] && kind=IP || kind=DNS
  names+=${names:+,}$kind:$name
done

new=$(mktemp -d ./secrets.XXXXXX)   # for its owner alone
trap 'rm -rf "$new"' EXIT
days=3650
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc)
openssl req -x509 "${key[@]}" -days $days -subj "/CN=gql-jobs NATS" -keyout "$new/ca.key" -out "$new/ca.pem" \
  -addext "basicConstraints=critical,CA:true" -addext "keyUsage=critical,keyCertSign" 2>/dev/null
openssl req -x509 "${key[@]}" -days $days -subj "/CN=$1" -CA "$new/ca.pem" -CAkey "$new/ca.key" \
  -keyout "$new/server.key" -out "$new/server.pem" -addext "subjectAltName=$names" \
  -addext "basicConstraints=critical,CA:false" -addext "extendedKeyUsage=serverAuth" 2>/dev/null
# Nothing else is to be signed by it: for other names all of this is made anew.
rm "$new/ca.key"
for user in api worker client keys doctor monitoring; do
  openssl rand -hex 32 >"$new/$user.password"
  echo "${user^^}_PASSWORD: \"$(<"$new/$user.password")\"" >>"$new/passwords.conf"
done
# Files for the users of containers; nobody else comes through the folder, whose mode is 0700.
chmod 0644 "$new"/*
mv "$new" secrets
trap - EXIT
echo "$PWD/secrets has the certificate for $names and the passwords" >&2
