package ossemu

func newError(status int, code, ec, message string) *apiError {
	return &apiError{status: status, code: code, ec: ec, message: message}
}

// The errors with OSS's words. EC numbers are those of the public EC pages
// (help.aliyun.com, 2023 to 2026) and of the official SDKs' fixtures; where one error has
// several, the number is given where the error is returned.
var (
	errAccessDenied = newError(403, "AccessDenied", "0003-00000001",
		"You have no right to access this object because of bucket acl.")
	errExpired     = newError(403, "AccessDenied", "0002-00000236", "Request has expired.")
	errNotYetValid = newError(403, "AccessDenied", "0002-00000235", "Request is not yet valid.")
	errNoDate      = newError(403, "AccessDenied", "0002-00000503", "OSS authentication requires a valid Date.")
	errWrongDate   = errNoDate.numbered("0002-00000502")
	errSkewed      = newError(403, "RequestTimeTooSkewed", "0002-00000504",
		"The difference between the request time and the current time is too large.")
	errSignature = newError(403, "SignatureDoesNotMatch", "0002-00000040",
		"The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	errAmbiguousSignature = errInvalidArgument.saying(
		"There is a signature in the Authorization header and another in the query; use one.", "")

	errAccessKeyID = newError(403, "InvalidAccessKeyId", "0002-00000902",
		"The OSS Access Key Id you provided does not exist in our records.")
	errNoSecurityToken = errAccessKeyID.numbered("0002-00000003") // a temporary key does not exist without it
	errSecurityToken   = newError(403, "InvalidSecurityToken", "0002-00000008",
		"The security token you provided is invalid.")
	errTokenExpired = newError(403, "SecurityTokenExpired", "0002-00000007",
		"The security token you provided has expired.")

	errInvalidArgument = newError(400, "InvalidArgument", "", "Invalid Argument.")
	errNotImplemented  = newError(501, "NotImplemented", "",
		"A header or parameter you provided implies functionality that is not implemented.")
	errMethodNotAllowed = newError(405, "MethodNotAllowed", "",
		"The specified method is not allowed against this resource.")
	errMalformedXML = newError(400, "MalformedXML", "0016-00000608",
		"The XML you provided was not well-formed or did not validate against our published schema.")
	errInternal = newError(500, "InternalError", "", "We encountered an internal error. Please try again.")

	errNoSuchBucket      = newError(404, "NoSuchBucket", "0015-00000101", "The specified bucket does not exist.")
	errSecondLevelDomain = newError(403, "SecondLevelDomainForbidden", "",
		"The bucket you are attempting to access must be addressed using OSS third level domain.")
	errBucketName     = newError(400, "InvalidBucketName", "0015-00000001", "The specified bucket is not valid.")
	errBucketNotEmpty = newError(409, "BucketNotEmpty", "0015-00000301",
		"The bucket has objects. Please delete them first.")

	errInvalidObjectName = newError(400, "InvalidObjectName", "", "The specified object is not valid.")
	errNoSuchKey         = newError(404, "NoSuchKey", "0026-00000001", "The specified key does not exist.")
	errFileAlreadyExists = newError(409, "FileAlreadyExists", "0026-00000002",
		"The object you specified already exists and can not be overwritten.")
	errObjectState  = newError(403, "InvalidObjectState", "", "The operation is not valid for the object's state.")
	errPrecondition = newError(412, "PreconditionFailed", "",
		"At least one of the pre-conditions you specified did not hold.")
	errNotModified   = newError(304, "NotModified", "", "Not Modified.")
	errInvalidRange  = newError(416, "InvalidRange", "", "The requested range cannot be satisfied.")
	errContentLength = newError(411, "MissingContentLength", "0017-00000101",
		"You must provide the Content-Length HTTP header.")
	errInvalidDigest  = newError(400, "InvalidDigest", "0017-00000502", "The Content-MD5 you specified was invalid.")
	errEntityTooLarge = newError(400, "EntityTooLarge", "0017-00000102",
		"Your proposed upload exceeds the maximum allowed size.")
	errEntityTooSmall = newError(400, "EntityTooSmall", "",
		"Your proposed upload is smaller than the minimum allowed size.")
	errIncompleteBody = newError(400, "IncompleteBody", "0017-00000505",
		"You did not provide the number of bytes specified by the Content-Length HTTP header.")
	errEncryption = newError(400, "InvalidEncryptionAlgorithmError", "0005-00000003",
		"The Encryption request you specified is not valid. Supported value: AES256/KMS/SM4.")

	errNoSuchUpload = newError(404, "NoSuchUpload", "0042-00000002",
		"The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.")
	errInvalidPart = newError(400, "InvalidPart", "",
		"One or more of the specified parts could not be found or the specified entity tag might not have matched the part's entity tag.")
	errInvalidPartOrder = newError(400, "InvalidPartOrder", "0042-00000209",
		"The list of parts was not in ascending order. The parts list must be specified in order by part number.")

	errMalformedPost = newError(400, "MalformedPOSTRequest", "0006-00000104",
		"The body of your POST request is not well-formed multipart/form-data.")
	errPolicyDocument = newError(400, "InvalidPolicyDocument", "", "Invalid Policy.")

	errCORSForbidden = newError(403, "AccessForbidden", "",
		"CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "+
			"Access-Control-Request-Method or Access-Control-Requet-Headers are not whitelisted by the resource's CORS spec.")
	errNoCORS = newError(403, "AccessForbidden", "", "CORSResponse: CORS is not enabled for this bucket.")

	errCallbackFailed = newError(203, "CallbackFailed", "", "")
)
