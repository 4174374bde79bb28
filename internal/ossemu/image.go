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

// imageInfo reads what ${imageInfo.…} stands for. As with OSS the content decides, not
// the Content-Type. What is not an image has no values; what starts as one but cannot
// be read is an error, and the callback then fails with "Get image info failed.".
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
