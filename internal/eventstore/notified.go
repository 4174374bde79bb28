package eventstore

import (
	"upcall/internal/event"
)

// notifiedFields are the columns of notifications.
var notifiedFields = func() []field[eventRow] {
	var fields []field[eventRow]
	for _, f := range eventFields {
		switch {
		case f.aside:
			continue
		case f.name == "received_at":
			f.value = "" // it is OSS's, and so not subject to our clock
		}
		fields = append(fields, f)
	}
	return append(fields, field[eventRow]{name: "noticed_at", pointer: func(e *eventRow) any { return &e.clock }})
}()

// notifiedKind is how notifications are written. Like an event, one that was received before someone asked
// to erase it is written without what was to be erased.
var notifiedKind = kind[eventRow]{
	fields: notifiedFields,
	bad:    event.ErrDeadLetter,
	insert: newStatement("upcall_notify", `
		WITH noticed AS (
			INSERT INTO upcall.notifications ({columns}) SELECT {values} FROM {given}
			ON CONFLICT DO NOTHING
			RETURNING id
		)
		SELECT id, 'n'::"char" FROM noticed
		UNION ALL SELECT NULL, NULL WHERE `+barrier, notifiedFields),
}
