// Package rows holds one table of what policies must mean: each rule of
// Kubernetes' NetworkPolicies and of Calico's model that polder has, with cases
// that the evaluator judges and that packets try in a lab.
package rows
