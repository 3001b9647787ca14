// Package failpoint names the places where Berth may die, so that a test can make it die at each.
//
// A failpoint stands before and after every commit to the store, every write of the agent's state
// and every call into containerd. In a normal build Hit is empty and costs nothing. In a build with
// the tag "failpoints" the environment variable BERTH_FAILPOINT, "name" or "name#n", makes the
// process kill itself with SIGKILL at the n-th hit (default 1) of that name, and
// BERTH_FAILPOINT_LOG names a file to which every name is appended once, at its first hit: the crash
// test learns from it which names there are to visit.
package failpoint
