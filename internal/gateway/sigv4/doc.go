// Package sigv4 verifies AWS Signature Version 4, the proof that a request was made by the holder of
// a secret key and has not been altered since.
//
// A request carries its signature in the Authorization header or, presigned, in its query. [Parse]
// takes it apart without any cryptography and says which access key and which credential scope it
// claims; the caller finds the secret of that key; [Verifier.Verify] then checks time, scope and
// signature. Nothing here knows where secrets are kept or what the request is for.
//
// Every refusal is an [*Error], whose Code gives AWS's error code and HTTP status for the protocol at
// hand and whose message is AWS's. Messages never hold a secret, a canonical request or a signature
// that was expected.
//
// Sources of behaviour: the IAM user guide, "AWS Signature Version 4 for API requests" and
// "Create a signed AWS API request"; the S3 API reference, "Authenticating Requests"; messages as the
// services answer them.
package sigv4
