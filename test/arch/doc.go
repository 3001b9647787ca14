// Package arch holds the tests of the house's plan: which room may know which.
package arch
