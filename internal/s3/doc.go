// Package s3 is the s3 service: buckets as rows of the store, objects in bulk storage.
//
// It is the part of S3 that programs use to keep files: buckets, objects, listings, copies, multipart
// uploads, with S3's conditions, ranges and checksums. Routing, signatures and the framing of bodies are
// the gateway's; an object's bytes stream from there into bulk storage and back, whatever their size.
//
// What is not kept is refused with NotImplemented and not ignored: versions, locks, encryption by key,
// tags, website redirects. Access lists are as in a bucket of today's default, where only its owner's
// account has access and lists cannot be set. A bucket is served whatever region a request is signed for;
// its own is the one it was created in.
//
// In bulk storage a bucket has an ID of its own, so that a new bucket of an old name begins empty:
//
//	s3/<bucket>/o/<key>                an object
//	s3/<bucket>/u/<upload>/upload      an upload not completed: what its object will be
//	s3/<bucket>/u/<upload>/00001       a part of it
package s3
