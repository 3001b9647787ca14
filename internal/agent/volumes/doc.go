// Package volumes gives tasks their volumes: host directories, made where ECS makes them, checked
// before a container gets them, and removed with the task where they live no longer than it.
//
// It owns one directory of the instance's:
//
//	tasks/<task ID>/<volume>/data   volumes of a task's own (host without sourcePath, Docker scope task)
//	tasks/<task ID>/<volume>/pin    a mount of what an EFS volume's root directory resolved to
//	tasks/<task ID>/.uses/<volume>  a note that the task uses a shared volume
//	shared/<volume>/volume.json     what a shared volume was made with
//	shared/<volume>/data            its content
//
// and beside it one directory for each EFS file system, <EFSDir>/<file system ID>, which stands for
// the file system on this host. An operator who wants a real one mounts it there.
//
// # What a container must not get
//
// What is in a volume was written by containers, so nothing in it is believed. A root directory in an
// EFS file system is resolved by the kernel with the file system's directory as the root
// (openat2, RESOLVE_IN_ROOT), and what was resolved is held by a mount, so that a directory that is
// exchanged for a link afterwards changes nothing. Removal never follows a link and never crosses a
// mount. Host paths may lead anywhere but into Berth's own directories: whoever may name one has the
// host, as with Docker. A directory above Berth's own is given; hiding Berth's part of it in the
// container is the runtime's.
//
// # Crashes
//
// tasks/<task ID> exists before anything else of the task, and goes last. Provide and Release may be
// cut off anywhere and called again.
package volumes
