"""Engines: each turns any step program into a posterior, and knows no model.

    exact         solve, condition and evaluate by elimination: tables, or Gaussians under quadratic rewards
    svi           fit a guide by ascent of the ELBO: tables or neural networks, exact or sampled gradients
    smc           particle filters and smoothers, which run any step
    stein         particles of one real-valued decision whose soft policy has no closed form
    q_learning    policies learned from sampled steps alone
    trust_region  policies that may move only so far, of any program; searches that iterate them on nonlinear systems
    execution     what players earn who act on their own knowledge

What they are made of: `chains` computes on a program that was read as tables or quadratics, `particles` moves particles
through any program, `fitting` holds guides, losses and the loop of a fit. Above the exact engine, `bounds` finds the
temperatures at which bounds are met, and `local` holds what is known of a nonlinear system about a trajectory.
"""
