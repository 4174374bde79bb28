package export

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"

	"github.com/parquet-go/parquet-go"
)

// contentKey is what the footer of a Parquet file has its [content] as. Who reads the file back sees with it whether
// it is still what was written.
const contentKey = "upcall.content"

var contentTable = crc64.MakeTable(crc64.ECMA)

// A content sums up the rows of a file, in their order.
type content struct {
	rows    int64
	digest  uint64 // CRC-64 of all values
	scratch []byte
}

func (c content) String() string { return fmt.Sprintf("rows=%d crc64=%016x", c.rows, c.digest) }

func (c *content) add(row parquet.Row) {
	c.rows++
	text := c.scratch[:0]
	for _, v := range row {
		switch v.Kind() {
		case parquet.Int32:
			text = binary.BigEndian.AppendUint32(append(text, 3), uint32(v.Int32()))
		case parquet.Int64:
			text = binary.BigEndian.AppendUint64(append(text, 1), uint64(v.Int64()))
		case parquet.ByteArray, parquet.FixedLenByteArray:
			value := v.ByteArray()
			text = append(binary.AppendUvarint(append(text, 2), uint64(len(value))), value...)
		default:
			text = append(text, 0)
		}
	}
	c.digest, c.scratch = crc64.Update(c.digest, contentTable, text), text
}
