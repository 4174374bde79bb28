package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A shelf is a bucket and what is uploaded to it.
type shelf struct {
	bucket string
	share  float64 // of all uploads
	folder string
	forms  []form
}

// A form is a content type.
type form struct {
	share  float64 // of the shelf's uploads
	mime   string
	ext    string
	median float64 // size in bytes
	spread float64 // of the size's logarithm
	image  string  // OSS's name of the format; "" if it is no image
}

// shelves have the content types as uploaders write them: not all in one way.
var shelves = []shelf{
	{"acme-photos", 0.62, "photos", []form{
		{0.62, "image/jpeg", "jpg", 2.2e6, 0.8, "jpg"}, {0.05, "image/jpg", "jpg", 2.2e6, 0.8, "jpg"},
		{0.02, "IMAGE/JPEG", "JPG", 3.1e6, 0.5, "jpg"}, {0.14, "image/png", "png", 7e5, 1.1, "png"},
		{0.09, "image/heic", "heic", 1.6e6, 0.5, "heic"}, {0.08, "image/webp", "webp", 2.5e5, 0.9, "webp"}}},
	{"acme-documents", 0.22, "documents", []form{
		{0.46, "application/pdf", "pdf", 3.5e5, 1.3, ""}, {0.16, "text/plain; charset=utf-8", "txt", 6e3, 1.6, ""},
		{0.14, "text/csv", "csv", 9e4, 1.9, ""},
		{0.18, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", 1.2e5, 1.0, ""},
		{0.06, "application/octet-stream", "bin", 5e4, 2.0, ""}}},
	{"acme-videos", 0.11, "videos", []form{
		{0.83, "video/mp4", "mp4", 3.8e7, 1.2, ""}, {0.17, "video/quicktime", "mov", 7.5e7, 1.0, ""}}},
	{"acme-backups", 0.05, "backups", []form{
		{0.55, "application/zip", "zip", 1.6e8, 1.4, ""}, {0.45, "application/octet-stream", "tar", 4e8, 1.1, ""}}},
}

// An object is what is uploaded to.
type object struct {
	shelf *shelf
	form  *form
	key   string
	user  int // from 1
}

// What is drawn for an upload is drawn apart, so that each can be drawn again alone.
const (
	drawObject = iota + 1
	drawContent
	drawEvent
	drawUnused
	drawOther
)

// draw returns random numbers for upload i, always the same.
func (m *maker) draw(i int, what uint64) *rand.Rand {
	return rand.New(rand.NewPCG(m.seed<<8|what, uint64(i)))
}

// object returns where upload i goes to.
func (m *maker) object(i int) object {
	r := m.draw(i, drawObject)
	if overwrites := r.Float64() < 0.05; overwrites && i > 0 {
		return m.object(earlier(r, i))
	}
	return m.newObject(r, i)
}

// newObject draws an object that the user who comes along at the time of upload i uploads to.
func (m *maker) newObject(r *rand.Rand, i int) object {
	o := object{user: m.user(r)}
	if r.Float64() < 0.03 { // each user has one, which they change at times
		o.user = 1 + r.IntN(m.users)
		o.shelf = &shelves[0]
		o.form = &o.shelf.forms[3]
		o.key = fmt.Sprintf("avatars/u%06d.png", o.user)
		return o
	}
	o.shelf = pick(r, shelves, func(s shelf) float64 { return s.share })
	o.form = pick(r, o.shelf.forms, func(f form) float64 { return f.share })
	day := m.calendar.at((float64(i) + 0.5) / float64(m.events)).In(chinaTime)
	name := fmt.Sprintf("%012x", r.Uint64()>>16)
	if o.shelf.folder == "documents" && r.Float64() < 0.1 {
		name = "合同-" + name
	}
	o.key = fmt.Sprintf("%s/u%06d/%s/%s.%s", o.shelf.folder, o.user, day.Format("2006/01/02"), name, o.form.ext)
	return o
}

// user draws one of the users, of whom few upload much.
func (m *maker) user(r *rand.Rand) int {
	const flat = 20 // how many are about equal at the top
	return min(m.users, 1+int(flat*math.Exp(r.Float64()*math.Log1p(float64(m.users)/flat))-flat))
}

// earlier draws the number of an upload before i, rather one of the last.
func earlier(r *rand.Rand, i int) int {
	return i - min(i, int(math.Exp(r.Float64()*math.Log(float64(i)+1))))
}

// pick draws one by its share. The last takes what rounding leaves.
func pick[T any](r *rand.Rand, from []T, share func(T) float64) *T {
	at := r.Float64()
	for i := range from {
		if at -= share(from[i]); at < 0 {
			return &from[i]
		}
	}
	return &from[len(from)-1]
}

// A content is what is uploaded.
type content struct {
	size   int64
	crc64  uint64
	md5    [16]byte
	pixels [2]int32 // width and height
}

// content returns what upload i brings. Some bring what an earlier one of the same form brought.
func (m *maker) content(i int, o object) content {
	r := m.draw(i, drawContent)
	if twin := r.Float64() < 0.06; twin && i > 0 {
		j := earlier(r, i)
		if other := m.object(j); other.form == o.form {
			return m.content(j, other)
		}
	}
	c := content{size: 1 + int64(o.form.median*math.Exp(o.form.spread*r.NormFloat64())), crc64: r.Uint64()}
	for k := range c.md5 {
		c.md5[k] = byte(r.Uint32())
	}
	long := int32(800 + r.IntN(3600))
	c.pixels = [2]int32{long, long * 3 / 4}
	if r.IntN(3) == 0 {
		c.pixels = [2]int32{long * 3 / 4, long}
	}
	return c
}

// milliseconds returns a time that is rarely short and sometimes long.
func milliseconds(r *rand.Rand, median, spread float64) time.Duration {
	return time.Duration(median*math.Exp(spread*r.NormFloat64())*1000) * time.Microsecond
}
