package rollup

const (
	// otherType is what types are counted as that are too many or too long.
	otherType = "other"
	// maxTypes is how many content types of an hour and bucket are counted apart.
	maxTypes = 200
	// mostThere is how many of them a worker remembers.
	mostThere = 10_000
	// maxName bounds bucket names and content types, which are in an index. No bucket of OSS
	// has more than 63 bytes, and no registered type more than 255.
	maxName = 255
)
