// Package agree holds tests that the evaluator of policies, the rules that are
// compiled of them, and the kernel that runs these say the same, in random
// worlds.
package agree
