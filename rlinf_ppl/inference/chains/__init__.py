"""What is computed on a program that was read as tables or quadratics: answers, policies, samples, equilibria."""
