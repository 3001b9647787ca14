package main

// rest is what a REST service does that botocore keeps in code and not in its model. Smithy's models have
// it as the traits restXml(noErrorWrapping), xmlName of an output and s3UnwrappedXmlOutput.
type rest struct {
	xmlNamespace    string
	noErrorWrapping bool
	outputs         map[string]string // operation → the root element of its output
	unwrapped       []string          // operations whose output's only member is the root
}

// s3Without are operations of S3 that the generator or the router cannot tell or carry: an event stream,
// a host label, one that only a host name tells from ListBuckets, and those that a successor of the same
// request replaced.
var s3Without = []string{
	"SelectObjectContent", "WriteGetObjectResponse", "ListDirectoryBuckets",
	"GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification",
}

// logsWithout are operations of CloudWatch Logs whose answers are event streams.
var logsWithout = []string{"GetLogObject", "StartLiveTail"}

var s3REST = rest{
	xmlNamespace:    "http://s3.amazonaws.com/doc/2006-03-01/",
	noErrorWrapping: true,
	outputs: map[string]string{
		"CompleteMultipartUpload": "CompleteMultipartUploadResult",
		"CreateMultipartUpload":   "InitiateMultipartUploadResult",
		"DeleteObjects":           "DeleteResult",
		"ListBuckets":             "ListAllMyBucketsResult",
		"ListMultipartUploads":    "ListMultipartUploadsResult",
		"ListObjects":             "ListBucketResult",
		"ListObjectsV2":           "ListBucketResult",
		"ListObjectVersions":      "ListVersionsResult",
		"ListParts":               "ListPartsResult",
		"GetBucketVersioning":     "VersioningConfiguration",
		"GetBucketTagging":        "Tagging",
		"GetObjectTagging":        "Tagging",
		"GetBucketAcl":            "AccessControlPolicy",
		"GetObjectAcl":            "AccessControlPolicy",
	},
	unwrapped: []string{"GetBucketLocation"},
}

// amend writes it into the model.
func (r *rest) amend(m *model) {
	if r == nil {
		return
	}
	m.Metadata.XMLNamespace = r.xmlNamespace
	m.Metadata.noErrorWrapping = r.noErrorWrapping
	for name, root := range r.outputs {
		m.Operations[name].Output.LocationName = root
	}
	for _, name := range r.unwrapped {
		m.Operations[name].Output.unwrapped = true
	}
}
