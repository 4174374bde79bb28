package doctor

import (
	"slices"
	"strings"
)

// querySteps undo what proxies and frameworks do to a query.
var querySteps = []step{
	once(QueryAdded, func(string) string { return "" }),
	{QueryEncoding, respell},
	{QueryAdded, without},
	{QueryReordered, reorder},
	once(QueryControlBytes, func(q string) string { return controlBytes.ReplaceAllString(q, "") }),
	once(QueryEntities, func(q string) string { return strings.ReplaceAll(q, "&amp;", "&") }),
	{QueryEmptyValues, func(q string) []string {
		added := eachPair(q, func(pair string) string {
			if pair == "" || strings.Contains(pair, "=") {
				return pair
			}
			return pair + "="
		})
		return []string{eachPair(q, func(pair string) string { return strings.TrimSuffix(pair, "=") }), added}
	}},
	once(QueryEncoding, func(q string) string { return strings.ReplaceAll(q, ";", "&") }),
}

// eachPair changes each pair of a query or a form by itself.
func eachPair(s string, change func(string) string) string {
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
// order of OSS's default template, reversed, then every order if there are few items, or
// else with one item moved.
func reorderAll[T any](items []T, join func([]T) string, name func(T) string) []string {
	const maxMoves = 20 // items: with more, moving each to each place is too many
	if len(items) < 2 {
		return nil
	}
	byName := func(a, b T) int { return strings.Compare(name(a), name(b)) }
	byRank := func(a, b T) int { return templateRank(name(a)) - templateRank(name(b)) }
	reversed := slices.Clone(items)
	slices.Reverse(reversed)
	orders := []string{
		join(slices.SortedStableFunc(slices.Values(items), byName)),
		join(slices.SortedStableFunc(slices.Values(items), byRank)),
		join(reversed),
	}
	switch {
	case len(items) <= maxPermuted:
		permute(slices.Clone(items), 0, func(order []T) { orders = append(orders, join(order)) })
	case len(items) <= maxMoves:
		for from := range items {
			for to := range items {
				moved := slices.Delete(slices.Clone(items), from, from+1)
				orders = append(orders, join(slices.Insert(moved, to, items[from])))
			}
		}
	}
	return orders
}

// permute calls visit with every order of items from index i on.
func permute[T any](items []T, i int, visit func([]T)) {
	if i == len(items) {
		visit(items)
	}
	for j := i; j < len(items); j++ {
		items[i], items[j] = items[j], items[i]
		permute(items, i+1, visit)
		items[i], items[j] = items[j], items[i]
	}
}

// without returns a query or a form with one pair less, or with several less at its end.
func without(s string) []string {
	const maxPairs = 40
	pairs := strings.Split(s, "&")
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
