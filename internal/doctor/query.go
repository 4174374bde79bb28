package doctor

import (
	"slices"
	"strings"
)

// querySteps undo what proxies and frameworks do to a query.
func querySteps() []step {
	return []step{
		once(QueryAdded, func(string) string { return "" }),
		{QueryEncoding, respell},
		{QueryAdded, without},
		{QueryReordered, reorder},
		once(QueryControlBytes, func(q string) string { return controlBytes.ReplaceAllString(q, "") }),
		once(QueryEntities, func(q string) string { return strings.ReplaceAll(q, "&amp;", "&") }),
		{QueryEmptyValues, func(q string) []string {
			return []string{
				eachPair(q, func(pair string) string { return strings.TrimSuffix(pair, "=") }),
				eachPair(q, func(pair string) string {
					if strings.Contains(pair, "=") {
						return pair
					}
					return pair + "="
				}),
			}
		}},
		once(QueryEncoding, func(q string) string { return strings.ReplaceAll(q, ";", "&") }),
	}
}

// eachPair changes each pair of a query or a form by itself.
func eachPair(s string, change func(string) string) string {
	if s == "" {
		return ""
	}
	pairs := strings.Split(s, "&")
	for i, pair := range pairs {
		pairs[i] = change(pair)
	}
	return strings.Join(pairs, "&")
}

// eachHalf changes each name and each value of a query or a form by itself.
func eachHalf(s string, change func(string) string) string {
	return eachPair(s, func(pair string) string {
		name, value, equals := strings.Cut(pair, "=")
		if !equals {
			return change(pair)
		}
		return change(name) + "=" + change(value)
	})
}

// maxPermuted is the number of fields up to which every order is tried: 5! = 120.
const maxPermuted = 5

// reorder returns a query or a form with its pairs in other orders.
func reorder(s string) []string {
	return reorderAll(strings.Split(s, "&"), func(pairs []string) string { return strings.Join(pairs, "&") },
		func(pair string) string { name, _, _ := strings.Cut(pair, "="); return name })
}

// reorderAll returns what join makes of items in other orders: sorted by name, in the
// order of OSS's default template, reversed, then every order if there are few items,
// or else with one item moved.
func reorderAll(items []string, join func([]string) string, name func(string) string) []string {
	if len(items) < 2 {
		return nil
	}
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b string) int { return strings.Compare(name(a), name(b)) })
	template := slices.Clone(items)
	slices.SortStableFunc(template, func(a, b string) int { return templateRank(name(a)) - templateRank(name(b)) })
	reversed := slices.Clone(items)
	slices.Reverse(reversed)
	orders := []string{join(sorted), join(template), join(reversed)}
	if len(items) <= maxPermuted {
		permute(slices.Clone(items), 0, func(order []string) { orders = append(orders, join(order)) })
		return orders
	}
	const maxMoves = 20 // items: with more, moving each to each place is too many
	if len(items) > maxMoves {
		return orders
	}
	for from := range items {
		for to := range items {
			if from == to {
				continue
			}
			moved := slices.Delete(slices.Clone(items), from, from+1)
			orders = append(orders, join(slices.Insert(moved, to, items[from])))
		}
	}
	return orders
}

// permute calls visit with every order of items from index i on.
func permute(items []string, i int, visit func([]string)) {
	if i == len(items) {
		visit(items)
		return
	}
	for j := i; j < len(items); j++ {
		items[i], items[j] = items[j], items[i]
		permute(items, i+1, visit)
		items[i], items[j] = items[j], items[i]
	}
}

// without returns a query or a form with one pair less, or with several less at its end.
func without(s string) []string {
	pairs := strings.Split(s, "&")
	const maxPairs = 40
	if len(pairs) < 2 || len(pairs) > maxPairs {
		return nil
	}
	var fewer []string
	for i := range slices.Backward(pairs) {
		fewer = append(fewer, strings.Join(slices.Delete(slices.Clone(pairs), i, i+1), "&"))
	}
	for n := len(pairs) - 2; n > 0; n-- {
		fewer = append(fewer, strings.Join(pairs[:n], "&"), strings.Join(pairs[len(pairs)-n:], "&"))
	}
	return fewer
}
