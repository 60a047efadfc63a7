package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/policy"
)

// answerTo answers a question by the spec, or, where that names a cluster, has the daemon
// answer, if there is one.
func answerTo[A any](cmd *cobra.Command, a *app, q control.Question[A]) (model A, err error) {
	// Its checks may fail: this is for finding out why they do.
	config, m, err := a.load(policy.Read)
	if err != nil {
		return model, err
	}
	if config.Spec.Kubernetes != nil {
		if model, err = daemonAnswers(cmd, a, q); !errors.Is(err, control.ErrNone) {
			return model, err
		}
		a.leavesOut(config.Spec)
	}
	return q.Answer(control.Known{Spec: config.Spec, Config: config, Model: m})
}

// daemonAnswers has the daemon answer. The error is control.ErrNone without one.
func daemonAnswers[A any](cmd *cobra.Command, a *app, q control.Question[A]) (model A, err error) {
	client, condition, err := control.Dial(cmd.Context(), a.stateDir)
	if err != nil {
		return model, err
	}
	defer closing(client, &err)
	if err := a.agreeOnFiles(cmd, condition); err != nil {
		return model, err
	}
	return control.Ask(cmd.Context(), client, q)
}
