package ossemu

// SignCallback returns the Authorization header of a callback with this raw request
// target and body, signed with the emulator's test key. It is for tests and benchmarks
// that play OSS towards a receiver.
func SignCallback(target string, body []byte) string {
	return sign([]byte(stringToSign(target, string(body), Faults{})))
}
