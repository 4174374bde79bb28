package console

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
)

const chartWidth, chartHeight = 240, 48

// chart draws the numbers of the last hour as a line, with the highest beside it. Numbers that are not known are gaps.
func chart(label string, points any) template.HTML {
	values, _ := points.([]any)
	top := highestOf(values)
	var lines strings.Builder
	gap := true
	for i, v := range values {
		f, ok := float(v)
		if !ok {
			gap = true
			continue
		}
		x, y := 0.0, float64(chartHeight-2)
		if len(values) > 1 {
			x = chartWidth * float64(i) / float64(len(values)-1)
		}
		if top > 0 {
			y -= (chartHeight - 4) * f / top
		}
		command := "L"
		if gap {
			command, gap = "M", false
		}
		fmt.Fprintf(&lines, "%s%.1f %.1f", command, x, y)
	}
	escaped := template.HTMLEscapeString(label + " " + shortly(top))
	return template.HTML(fmt.Sprintf(`<svg class="chart" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s"><path d="%s"/></svg>`,
		chartWidth, chartHeight, escaped, lines.String()))
}

// highest returns the highest of the numbers.
func highest(points any) string {
	values, _ := points.([]any)
	return shortly(highestOf(values))
}

func highestOf(values []any) (top float64) {
	for _, v := range values {
		if f, ok := float(v); ok {
			top = max(top, f)
		}
	}
	return top
}

func shortly(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }
