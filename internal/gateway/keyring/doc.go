// Package keyring holds Berth's own credentials: the account's root key and the sessions that STS
// hands out.
//
// The root key is made at the first start and lies in a file. Sessions lie nowhere. A session token is
// the session itself (whose it is, until when), sealed with AES-256-GCM under a key from a second
// file, and the session's secret key is an HMAC of that token; so issuing one writes nothing, every
// server that has the key file accepts it, and it survives any restart. A token names the key that
// sealed it, so that [Keyring.Rotate] can bring in a new one while old sessions live on.
//
// What flows through: STS calls [Keyring.Issue]; the gateway calls [Keyring.Lookup] for every signed
// request. Both files are made atomically with mode 0600 and refused when others can read them.
package keyring
