"""The training machine: it runs any step and knows no model, data set or measure."""
