// Package sts is AWS's Security Token Service: who am I, and temporary credentials.
//
// It keeps no state. A session is made by an [Issuer], which is the gateway's keyring, and lives in
// its own token. Until there is an IAM no role exists: every well-formed role ARN of the account can
// be assumed by whoever is authenticated in it, root included (AWS refuses roles to root, but has users
// to give them to), and a session may do what its account may. Session policies, tags, context
// assertions and external IDs are checked for form and not enforced; MFA is refused, for nobody has a
// device.
//
// Sources: the STS API reference, and the messages its service answers with.
package sts
