// Package store owns Berth's durable state: typed tables over etcd. It is the only package that
// imports etcd.
//
// # What flows through
//
// Writers call [Store.Update] with a function over a [Tx]. The function reads the newest snapshot
// and collects writes; the store sends them as one etcd transaction that compares the revision of
// every row the function got, put or deleted, and runs the function again when one of them had
// changed. Update answers when the local snapshot includes the commit, so whoever writes reads what
// was written.
//
// One etcd watch over the whole prefix brings every commit, whoever made it, one revision at a time.
// Each revision is decoded once and makes a new immutable [Snapshot]: all tables and their indexes at
// that revision. Taking a snapshot is one atomic load; reading one takes no lock and no I/O.
//
// Loops call [Store.Watch] with the snapshot they started from and get every change after it, without
// gaps. A change carries the rows' old and new values and the snapshot it led to. A watcher that falls
// behind gets the missed revisions folded into one change and never slows the store.
//
// # Where it is kept
//
// With no endpoints configured the store runs an etcd member inside the process. It has no listener,
// neither TCP nor unix: the client's calls are function calls. With endpoints the same client code
// talks to an etcd cluster, over TLS when it is given.
//
// A row is at <prefix>/<table>/<account>/<region>/<id>; its value is JSON in an envelope that tells the
// version of the table's schema: {"v":2,"d":{…}}. Rows of older versions are migrated when they are
// read and rewritten when they are next written. Data of a newer version than the binary knows is
// refused with [NewerSchemaError]. Tables whose name begins with "@" are the store's own: the format and
// the instance ID (@meta), servers' leases (@servers), and candidates of elections (@elections).
//
// # When things go wrong
//
//   - A database at its quota: writes fail with [ErrNoSpace] while reads go on. The store compacts,
//     defragments and disarms the alarm by itself; when rows were deleted, or the quota was raised,
//     writing works again within seconds.
//   - The embedded member cannot write or sync its log (full disk, I/O error): etcd's answer is to
//     end the process. Here the member alone stops, before it acknowledges anything further; the
//     cause is logged, [Store.Done] is closed, [Store.Err] and every later call tell it. Reading
//     snapshots still works. The process has to be started again once the disk has been mended.
//   - A lost connection to an external cluster: snapshots grow old, writes wait for their context. An
//     attempt whose answer got lost is told apart from one that failed; see [ErrUnknownOutcome].
package store
