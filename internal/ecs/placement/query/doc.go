// Package query is the cluster query language: the expressions of memberOf placement constraints and
// of ListContainerInstances' filter, as the Amazon ECS developer guide describes them under "Cluster
// query language".
//
// It is pure. What flows through: [Parse] turns a text into an [Expr] once, at the time of the call;
// [Expr.Match] asks it of one [Subject] after the other, in time linear in the expression whatever the
// pattern, because patterns are those of RE2. Patterns that Java reads otherwise than RE2, or that only
// Java has, are refused by Parse.
//
// Where the guide is silent: a comparison of what an instance does not have is false whichever way it
// is put, so that "attribute:stack != prod" means instances that have a stack, as the guide's example
// says. An instance has any number of task groups: task:group == g says that one of them is g, and
// task:group != g that none is. Keywords are read in either case.
package query
