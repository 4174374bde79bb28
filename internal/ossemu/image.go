package ossemu

import (
	"errors"
	"image"
	_ "image/gif" // the formats whose size is read
	_ "image/jpeg"
	_ "image/png"
	"io"
	"strconv"
)

// imageInfo reads the values of ${imageInfo.…}. Like OSS, it looks at the content, not
// the Content-Type. Content that is not an image has no values. Content that starts as
// an image but cannot be read is an error, and the callback then fails with
// "Get image info failed.".
func imageInfo(r io.Reader) (map[string]string, error) {
	cfg, format, err := image.DecodeConfig(r)
	if errors.Is(err, image.ErrFormat) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if format == "jpeg" {
		format = "jpg" // OSS's name for it
	}
	return map[string]string{
		"imageInfo.width":  strconv.Itoa(cfg.Width),
		"imageInfo.height": strconv.Itoa(cfg.Height),
		"imageInfo.format": format,
	}, nil
}
