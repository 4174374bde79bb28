package uploader

import "hash/crc64"

// crcTable is the table of the CRC-64 in OSS's header x-oss-hash-crc64ecma.
var crcTable = crc64.MakeTable(crc64.ECMA)

// combineCRC returns the CRC-64 of two adjacent pieces from the CRC-64 of each and the
// size of the second in bytes. Appending n zero bytes to a piece multiplies its polynomial
// by x^8n; the second piece is then added.
func combineCRC(first, second uint64, size int64) uint64 {
	const one, toTheEighth = 1 << 63, 1 << 55 // bit 63 is the coefficient of x^0
	shift, square := uint64(one), uint64(toTheEighth)
	for ; size > 0; size >>= 1 {
		if size&1 != 0 {
			shift = multiply(shift, square)
		}
		square = multiply(square, square)
	}
	return multiply(shift, first) ^ second
}

// multiply returns the product of two polynomials, modulo the CRC's.
func multiply(a, b uint64) uint64 {
	var product uint64
	for ; a != 0; a <<= 1 {
		if a>>63 != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crc64.ECMA
		}
	}
	return product
}
