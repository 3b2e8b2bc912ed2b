"""What is shown of an answer: the recovery's table, pictures, graphs and ArviZ data.

    cases        the named cases: a task, a model, a horizon, an inverse temperature
    recovery     three answers to a case, and one row that compares them
    fitted       a case whose guide no table holds, fitted and played
    hidden       a case of one agent under hidden state: bounds, and policies of little memory
    signals      a case of two who see different things: what their first actions come to mean
    searches     a case of a nonlinear system that roll-outs tell of: policy search within bounds
    recoveries   which of these recovers a case
    engines      the engines that sample: their estimates of a case, or why there are none
    kinds        the one place that tells Gaussian answers from tables
    horizons     the one place that tells an infinite horizon from a finite one
    table        the rows as tables on a terminal, as JSON and as Markdown
    plots        policies, values and fits
    bands        where vectors go, and how policies react
    hidden_plots  a belief over time, and what a signal means: `plot_belief`, `plot_signals`
    search_plots  a strip of poses, costs and what is spent: `plot_poses`, `plot_costs`, `plot_spending`
    temperature  value and policy from the prior to the hard optimum
    graphs       the graph of one time step
    looks        colours and dashes
    arviz        labelled arrays, for ArviZ and netCDF
    samples      samples of NumPyro's on a program, one variable a site: `to_arviz`
    results      all of it on disk

matplotlib, ArviZ, xarray and rich are imported by the functions that need them.
"""

from rlinf_ppl.report.hidden_plots import plot_belief, plot_signals
from rlinf_ppl.report.samples import to_arviz
from rlinf_ppl.report.search_plots import plot_costs, plot_poses, plot_spending

__all__ = ["plot_belief", "plot_costs", "plot_poses", "plot_signals", "plot_spending", "to_arviz"]
