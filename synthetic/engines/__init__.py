"""Ways to reach a language model, behind one seam: `contract.Engine`."""
